# Serves the files of a folder, `FILES`, to whoever speaks Rack; each is read anew.
run lambda { |env|
  begin
    status, body = 200, File.binread(File.join(ENV.fetch("FILES"), File.basename(env["PATH_INFO"])))
  rescue SystemCallError
    status, body = 404, "there is no such file\n"
  end
  [status, { "content-type" => "text/plain", "content-length" => body.bytesize.to_s }, [body]]
}
