// Half of a site, on Express; the other half is app.py beside it. They share the login.
//
//     npm install express@5 express-session@1.19 session-file-store@1.5
//     SESSIONS=var/shared SECRET="keyboard cat" PORT=3000 node examples/express/server.js
//     SESSIONS=var/shared SECRET="keyboard cat" uvicorn app:app --app-dir examples/express
//
// Then log in at http://localhost:3000 and visit http://localhost:8000, or the other way round. On a
// real host a proxy in front sends some paths here and some there. What must be alike on both sides:
// the secret, the name of the cookie and its attributes, the directory and the ttl.
'use strict';

const express = require('express');
const session = require('express-session');
const FileStore = require('session-file-store')(session);

const app = express();

app.use(session({
  secret: [process.env.SECRET],
  name: 'connect.sid',
  cookie: { sameSite: 'lax', maxAge: 86400 * 1000 },
  resave: false, // true would write back, with every request, what the session was when it began
  saveUninitialized: false,
  store: new FileStore({ path: process.env.SESSIONS, ttl: 3600, logFn: () => {} }),
}));

app.get('/', (request, response) => {
  request.session.visits = (request.session.visits || 0) + 1;
  const { user, visits } = request.session;
  response.send(`<p>Express: ${user ? `hello ${user}` : 'who are you?'} Visits: ${visits}
    <form method="post" action="/login"><button>Log in</button></form>
    <form method="post" action="/logout"><button>Log out</button></form>`);
});

app.post('/login', (request, response, next) => {
  request.session.regenerate((error) => {
    if (error) return next(error);
    request.session.user = 'ada';
    return request.session.save(() => response.redirect(303, '/')); // or the redirect outruns it
  });
});

app.post('/logout', (request, response, next) => {
  request.session.destroy((error) => (error ? next(error) : response.redirect(303, '/')));
});

const server = app.listen(process.env.PORT || 3000, '127.0.0.1', () => {
  console.log(`listening ${server.address().port}`);
});
