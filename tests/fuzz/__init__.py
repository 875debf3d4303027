"""Random config.json and state files, most of them invalid: each results in a container or in one clean error."""
