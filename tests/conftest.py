"""Settings of all tests: random examples have no time limit, since a busy machine is not a mistake."""

from hypothesis import settings

settings.register_profile("course", deadline=None)
settings.load_profile("course")
