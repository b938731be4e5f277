"""Before training: describe a data folder (`init`) and check its files (`check`)."""
