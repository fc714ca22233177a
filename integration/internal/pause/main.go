// Command pause runs until it is told to end. Containers of tests run it: it
// needs nothing that it could write to.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	<-end
}
