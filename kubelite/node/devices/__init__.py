"""The devices of device plugins, as containers get them. Pure."""
