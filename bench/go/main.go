// The two ends of every measurement, for us and for the peers alike: a participant whose steps do
// nothing, and clients that start sagas in a closed loop. `bench participant -h`, `bench load -h`.
package main

import (
	"fmt"
	"os"
)

func main() {
	commands := map[string]func([]string) error{"participant": participate, "load": load}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: bench participant|load [flags]")
		os.Exit(2)
	}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}
