// Package schedule is when: the delays of an exponential backoff, and a timing wheel that holds what waits.
package schedule
