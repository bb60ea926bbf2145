// Package pool is what a site knows of its connections' far ends: addresses in the order of preference, and which of them failed.
package pool
