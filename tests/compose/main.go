// Loads a compose file as Docker Compose does (unknown keys and references to nothing are refused, variables have
// their defaults) and prints the project as JSON.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/compose-spec/compose-go/v2/cli"
)

func main() {
	options, err := cli.NewProjectOptions(os.Args[1:2], cli.WithName("tuflog"))
	if err == nil {
		if project, loaded := options.LoadProject(context.Background()); loaded == nil {
			var text []byte
			if text, err = project.MarshalJSON(); err == nil {
				fmt.Println(string(text))
			}
		} else {
			err = loaded
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
