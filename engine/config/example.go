package config

import _ "embed"

// Example is a configuration that shows every key with its default, ready to be saved as mailrace.toml.
//
//go:embed example.toml
var Example string
