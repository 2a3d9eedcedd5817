"""Settings of all tests: random examples have no time limit, since a busy machine is not a mistake; no progress is kept."""

import os
import signal

from hypothesis import settings

settings.register_profile("course", deadline=None)
settings.load_profile("course")
os.environ["COURSE_PROGRESS"] = ""
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores Ctrl-C, and so would all it starts
