"""The tools that a repository wants: planned from its files on the host, installed by mise in the guest."""
