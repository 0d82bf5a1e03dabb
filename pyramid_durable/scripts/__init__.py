"""The commands pscheduler and pjobs."""
