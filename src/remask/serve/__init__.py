"""The embedded target behind HTTP. `door` decides who may come in, `wire` says what requests and
answers look like, `app` answers them one at a time, `server` listens. Needs the extras web and
local."""
