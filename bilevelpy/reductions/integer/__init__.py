"""Integer followers: whose best responses are ``multiples`` of a number, when a leader's choice
among them is at ``vertices``, and when their ``relaxation`` is integral.
"""
