"""What components do: exact effects of interventions, estimates of them, components jointly."""
