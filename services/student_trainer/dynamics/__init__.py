"""The paper's three dynamics as pure functions of tensors: nothing but torch is imported here."""
