"""The way to be root: a closed list of requests, the helper that serves it, and three ways to reach it."""
