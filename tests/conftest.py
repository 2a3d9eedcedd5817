"""Settings of all tests: random examples have no time limit, since a busy machine is not a mistake; no progress is kept."""

import os

from hypothesis import settings

settings.register_profile("course", deadline=None)
settings.load_profile("course")
os.environ["COURSE_PROGRESS"] = ""
