"""config.json and state files of every kind, most of them wrong: each ends in a container or in one clean error."""
