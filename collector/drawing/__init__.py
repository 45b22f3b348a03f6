"""
Draws what was measured, as SVG: for the bench and for the commands that show a person a course over time.
"""
