package main

import "time"

// pace says when a batch is worth waiting for; see mesh/pace.py.
type pace struct {
	rate float64 // parts a second
	last time.Time
}

const (
	longestWait  = 2 * time.Millisecond
	worthWaiting = 4.0
	largeBatch   = 16
	paceMemory   = 0.8
)

func (p *pace) wait(ready int) time.Duration {
	if ready < largeBatch && p.rate*longestWait.Seconds() >= worthWaiting {
		return longestWait
	}
	return 0
}

func (p *pace) sent(parts int) {
	now := time.Now()
	since := max(now.Sub(p.last).Seconds(), 1e-6)
	p.last = now
	p.rate = paceMemory*p.rate + (1-paceMemory)*float64(parts)/since
}
