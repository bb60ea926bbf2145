package loop

import (
	"fmt"
	"log/slog"
)

// gnetLogger passes gnet's messages on. What gnet calls information is of no use to an operator, so it is debugging here.
type gnetLogger struct{ log *slog.Logger }

func (g gnetLogger) Debugf(format string, args ...any) { g.log.Debug(g.message(format, args)) }
func (g gnetLogger) Infof(format string, args ...any)  { g.log.Debug(g.message(format, args)) }
func (g gnetLogger) Warnf(format string, args ...any)  { g.log.Warn(g.message(format, args)) }
func (g gnetLogger) Errorf(format string, args ...any) { g.log.Error(g.message(format, args)) }
func (g gnetLogger) Fatalf(format string, args ...any) { g.log.Error(g.message(format, args)) }

func (g gnetLogger) message(format string, args []any) string {
	return "gnet: " + fmt.Sprintf(format, args...)
}
