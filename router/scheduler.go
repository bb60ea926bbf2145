package router

// Scheduler owns the sites whose keys hash to its loop, what waits for a lookup there, and what is deferred there.
type Scheduler struct {
	router *Router
	env    *Env
	loop   int
}
