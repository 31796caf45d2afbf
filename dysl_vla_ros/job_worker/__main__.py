"""The process that computes for a command; started by ``JobWorker``, never by hand. It ends with the command."""

from dysl_vla_ros.parent_process import end
from dysl_vla_ros.worker.__main__ import main

if __name__ == "__main__":
    end(main("dysl_vla_ros.job_worker.server"))
