"""The scripted model as a chat model of each framework; yours is a real one."""
