"""The tensor IR: the waist of the package. Everything after the front end knows a model only as
this.

``program`` holds declarations and levels, ``expr`` the nodes, ``atoms`` the table of functions.
``build`` makes nodes in canonical form (``leaves``, ``products``, ``recognise``), ``walk`` and
``substitute`` go over them, ``evaluate`` is the reference interpreter (``meanings`` and
``functions``), ``serial`` and ``restore`` are its published JSON.
"""
