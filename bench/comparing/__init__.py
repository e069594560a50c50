"""Two result files held against each other, with a verdict only beyond the noise."""
