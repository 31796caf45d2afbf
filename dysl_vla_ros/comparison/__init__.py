"""Methods side by side: what is compared, how it is played, tables and pictures of it."""
