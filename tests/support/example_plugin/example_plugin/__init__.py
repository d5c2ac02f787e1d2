"""A plug-in of autoresearch: an agent, a runner and a task."""
