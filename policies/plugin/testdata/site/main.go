// Command site is an example of a site's own decider, and what the tests ask. A real one would look at a rota or a ticket.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"mayfly/policies/plugin"
	"mayfly/policies/plugin/sdk"
)

func main() {
	sdk.Serve(func(ctx context.Context, q plugin.Request) (plugin.Answer, error) {
		switch q.User {
		case "evil":
			return plugin.Answer{Deny: true, Text: "not on the rota"}, nil
		case "crash":
			os.Exit(3)
		case "slow":
			time.Sleep(5 * time.Second)
		case "wrong":
			return plugin.Answer{}, fmt.Errorf("no rota")
		case "fork":
			child := exec.Command("/bin/sleep", "600")
			if err := child.Start(); err != nil {
				return plugin.Answer{}, err
			}
			return plugin.Answer{Deny: true, Text: fmt.Sprint(child.Process.Pid)}, nil
		case "who":
			return plugin.Answer{Deny: true, Text: fmt.Sprintf("uid %d env %s", os.Getuid(), names())}, nil
		}
		if q.Kind == "target" && q.Port == 23 {
			return plugin.Answer{Deny: true, Text: "no telnet"}, nil
		}
		return plugin.Answer{}, nil
	})
}

// names are the environment's variables, which are go-plugin's alone.
func names() string {
	var list []string
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		list = append(list, name)
	}
	return strings.Join(list, " ")
}
