package network

import "strings"

// words splits a command written as one would type it; no part of it holds a space of its own.
func words(parts ...string) []string { return strings.Fields(strings.Join(parts, " ")) }
