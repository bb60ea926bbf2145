package config

import _ "embed"

// Example is the reference: a configuration that shows every key, with its default and its meaning. mailrace config prints it.
//
//go:embed example.toml
var Example string
