"""Expressions of the IR as functions of tensors or arrays: graphs, kernels, derivatives.

``graph`` lowers expressions to ``torch.fx`` by ``kernels``, ``contract``, ``fusing`` and ``gaps``;
``arrays`` runs small graphs in NumPy. ``derive`` differentiates on the IR, ``differentiate`` by the
tape. ``compiled`` keeps the programs of a model, ``layout`` its vectors, ``constraints`` its rows,
``memory`` says what they take.
"""
