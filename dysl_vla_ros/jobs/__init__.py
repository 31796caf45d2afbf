"""What the verbs do, as functions: paths and settings in, a result out. Nothing here parses arguments or prints.

What is to be seen on the way is logged (``logging``, below ``dysl_vla_ros``); long work shows a bar.
"""
