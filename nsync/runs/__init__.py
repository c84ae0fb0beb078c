"""What every training shares: a run's folder, its log, its states and how it goes on."""
