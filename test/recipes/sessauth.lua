-- recipe: lua
-- Asks sessauth-gate, and leaves its answer in txn.sessauth_status: unset, as after an error, it lets nobody through.
core.register_action("sessauth", { "http-req" }, function(txn)
	local client = txn.http:req_get_headers()
	local answer = core.httpclient():get {
		url = "http://127.0.0.1/auth",
		dst = "unix@@gate@",
		headers = { authorization = client["authorization"], cookie = client["cookie"] },
		timeout = 3000
	}
	if answer.status == 200 then
		for _, name in ipairs { "x-sessauth-tenant", "x-sessauth-user", "x-sessauth-session", "x-sessauth-epoch" } do
			txn.http:req_set_header(name, answer.headers[name][0])
		end
	elseif answer.status == 401 then
		txn:set_var("txn.sessauth_challenge", answer.headers["www-authenticate"][0])
	end
	txn:set_var("txn.sessauth_status", answer.status)
end)
-- end of recipe
