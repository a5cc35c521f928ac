"""Methods by the implicit function theorem: a response, and the adjoint of its conditions."""
