"""Training of the reference policy at full depth, from demonstrations."""
