"""How a model is judged: measures that a blurred or held picture cannot pass, tables and strips."""
