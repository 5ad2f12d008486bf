"""What commands beside the stages do: plan, explain, measure endpoints, look at them, end them, compare versions."""
