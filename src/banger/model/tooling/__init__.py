"""Which tools a repository wants, read from the files in which people write it down. Pure: contents come in as text.

`plan` is the way in. Each family of files has a module of its own, which yields what it finds; `ranges` turns version
ranges into what mise takes, `found` holds names and versions to account.
"""
