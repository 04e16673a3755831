"""The second waist: everything that banger may ask of root. Standard library only; both sides validate.

`values` has the words (names, addresses, guests), `requests` the closed list, `codec` their form on the wire.
"""
