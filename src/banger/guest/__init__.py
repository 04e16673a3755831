"""Layer 3: the guest agent's protocol from the host's side, and the configuration a guest boots with."""
