"""What the arm is told: the commander plays chunks, limits bound them, freshness stops them. numpy only."""
