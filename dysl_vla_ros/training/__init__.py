"""Training of the reference policy at full depth, from demonstrations and corrections of its own mistakes."""
