// Command pinentry is a pinentry for tests: it speaks the Assuan protocol, writes what it was told to the file PINENTRY_LOG, and answers GETPIN
// as PINENTRY_DO says: "give PIN", "cancel", "timeout", "die", "hang", "flood", "long", "garbage", "notty", "inquire".
package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"time"
)

func main() {
	log, err := os.OpenFile(os.Getenv("PINENTRY_LOG"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		fmt.Println("ERR 1 log")
		os.Exit(1)
	}
	what, argument, _ := strings.Cut(os.Getenv("PINENTRY_DO"), " ")
	fmt.Println("OK a pinentry for tests")
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		fmt.Fprintln(log, in.Text())
		switch command, _, _ := strings.Cut(in.Text(), " "); command {
		case "GETPIN":
			answer(what, argument)
		case "BYE":
			fmt.Println("OK")
			return
		case "OPTION", "SETTIMEOUT":
			fmt.Println("ERR 83886254 Unknown option <Pinentry>")
		default:
			fmt.Println("OK")
		}
	}
}

func answer(what, argument string) {
	switch what {
	case "give":
		fmt.Printf("# a comment\nS PIN_REPEATED\nD %s\nOK\n", strings.NewReplacer("%", "%25", "\n", "%0A").Replace(argument))
	case "cancel":
		fmt.Println("ERR 83886179 Operation cancelled <Pinentry>")
	case "timeout":
		fmt.Println("ERR 83886142 Timeout <Pinentry>")
	case "die":
		os.Exit(3)
	case "hang":
		time.Sleep(time.Hour)
	case "flood":
		for {
			if _, err := fmt.Println("S more"); err != nil {
				os.Exit(1)
			}
		}
	case "long":
		fmt.Printf("D %s\nOK\n", strings.Repeat("1", 900))
	case "garbage":
		fmt.Println("WHAT")
	case "notty":
		fmt.Println("ERR 83918950 Inappropriate ioctl for device <Pinentry>")
	case "inquire":
		fmt.Println("INQUIRE PASSPHRASE")
	}
}
