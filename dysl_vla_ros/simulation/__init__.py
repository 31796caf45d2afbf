"""Meta-World as a robot with two cameras, its scripted experts, and the demonstrations made with them."""
