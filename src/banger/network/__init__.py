"""How guests reach the world and the host reaches them: address plans, ports, names and resolvers."""
