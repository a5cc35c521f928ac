"""The tensor IR: the waist of the package. Everything after the front end knows a model only as
this.
"""
