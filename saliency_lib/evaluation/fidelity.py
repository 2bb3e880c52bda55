"""How truly a map tells what the model does: ROAD, infidelity, average drop and increase."""
