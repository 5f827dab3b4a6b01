"""Array libraries, devices, checks of arguments, linear algebra."""
