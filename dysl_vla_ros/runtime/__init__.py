"""One control step of a policy: the one place where a step happens, for worker, evaluation, replay and benchmark."""
